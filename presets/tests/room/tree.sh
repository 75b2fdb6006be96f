#!/bin/bash
# What both rooms begin with; sourced by boot.sh and enter.sh, in namespaces of their own.

# over_tree TREE FOLDER: an overlay of which nothing stays, and where we are from now on.
over_tree() {
  local over=$2/over
  mount --make-rprivate /
  mkdir -p "$over"
  mount -t tmpfs -o mode=755 none "$over"
  mkdir "$over/upper" "$over/work" "$over/root"
  mount -t overlay none -o "lowerdir=$1,upperdir=$over/upper,workdir=$over/work" "$over/root"
  cd "$over/root" || exit
}

# Only what is the room's own may be set in /proc: the rest would be the machine's. /sys is for reading.
proc_and_sys() {
  local settings
  mount -t proc none proc
  for settings in kernel vm fs dev user; do
    if [[ -d proc/sys/$settings ]]; then
      mount --bind "proc/sys/$settings" "proc/sys/$settings"
      mount -o remount,bind,ro "proc/sys/$settings"
    fi
  done
  mount -t sysfs -o ro none sys
}

# devices NAME...: /dev with these, as far as the machine has them.
devices() {
  local device
  mount -t tmpfs -o mode=755 none dev
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 none dev/pts
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  ln -s fd/0 dev/stdin
  ln -s fd/1 dev/stdout
  ln -s fd/2 dev/stderr
  for device in "$@"; do
    if [[ -e /dev/$device ]]; then
      if [[ $device == */* ]]; then mkdir -p "dev/${device%/*}"; fi
      touch "dev/$device"
      mount --bind "/dev/$device" "dev/$device"
    fi
  done
  mount -t tmpfs -o mode=1777 none dev/shm
}
