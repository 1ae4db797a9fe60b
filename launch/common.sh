# What the scripts beside this file share; they source it, from the repository's root.

# Prints the comment at the head of a script, by its name, and ends.
usage() {
  sed -n '2,/^set /{/^# /s/^# //p;/^#$/s/^#//p}' "launch/$1.sh"
  exit 2
}

# Whether the command, the first word, runs on every host; others run on the first alone.
on_every_host() {
  [[ $1 == train || $1 == evaluate || $1 == predict || $1 == -* ]]
}

# Waits for a child, also when a signal ends the wait; its exit code is in `code` then.
wait_for() {
  local again=0
  code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do
    code=0
    wait "$1" || code=$?
  done
  # This may be the code of a signal that ended the wait just before the child's end.
  if [[ $code -gt 128 ]]; then
    wait "$1" 2>/dev/null || again=$?
    if [[ $again != 127 ]]; then code=$again; fi # 127: it was waited for already
  fi
}
