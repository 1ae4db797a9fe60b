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
