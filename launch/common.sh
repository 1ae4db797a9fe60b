# Functions shared by the scripts in this folder, which source it from the repository's root.

# Prints the header comment of a script, given by name, and exits.
usage() {
  sed -n '2,/^set /{/^# /s/^# //p;/^#$/s/^#//p}' "launch/$1.sh"
  exit 2
}

# Succeeds if the command, the first word, runs on every host; others run on the first only.
on_every_host() {
  [[ $1 == train || $1 == evaluate || $1 == predict || $1 == -* ]]
}

# Waits for a child, even if a signal interrupts the wait; sets `code` to its exit code.
wait_for() {
  local again=0
  code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do
    code=0
    wait "$1" || code=$?
  done
  # This may be the code of a signal that interrupted the wait just before the child ended.
  if [[ $code -gt 128 ]]; then
    wait "$1" 2>/dev/null || again=$?
    if [[ $again != 127 ]]; then code=$again; fi # 127: already waited for
  fi
}
