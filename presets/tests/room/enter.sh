#!/bin/bash
# Makes the room and runs /room/steps.sh in it: bash enter.sh TREE FOLDER, in namespaces of its own.
# FOLDER is /room inside: what the steps write there is all that outlives the room.
set -eu
tree=$1 folder=$2
# shellcheck source=presets/tests/room/tree.sh
source "${0%/*}/tree.sh"

over_tree "$tree" "$folder"
proc_and_sys
devices null zero full random urandom tty
mount -t tmpfs -o mode=755 none run
mkdir -p run/systemd/system run/lock run/sshd
mkdir room
mount --bind "$folder" room
for tool in "$folder"/bin/*; do
  install -m 0755 "$tool" usr/local/sbin/
  if [[ ! -e usr/bin/${tool##*/} ]]; then ln -s "/usr/local/sbin/${tool##*/}" usr/bin/; fi
done
umask 077
exec chroot . env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 TERM=dumb \
  bash -c 'cd /; hostname room; ip link set lo up; source /room/steps.sh'
