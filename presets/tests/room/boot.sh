#!/bin/bash
# Boots the room's own systemd and runs /room/steps.sh in it: bash boot.sh TREE FOLDER [inside].
# FOLDER is /room inside: what the steps write there is all that outlives the room.
set -eu
tree=$1 folder=$2

if [[ ${3:-} != inside ]]; then
  # systemd wants a cgroup tree to itself. A machine may have one of version 2 beside those of version 1.
  groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
  own=$groups/hyprbox-room-$$
  # Of rooms whose script was killed, the empty groups are left.
  for old in "$groups"/hyprbox-room-*; do
    if [[ -d $old && ! -d /proc/${old##*-} ]]; then find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
  done
  mkdir "$own"
  (
    echo "$BASHPID" >"$own/cgroup.procs"
    # Whoever kills this script kills the room.
    exec setpriv --pdeathsig KILL unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child bash "$0" "$tree" "$folder" inside
  ) || true
  # What was in it died with the room's first process; the kernel takes a moment to notice.
  for _ in 1 2 3 4 5; do
    find "$own" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.2
  done
  cat "$folder/output" 2>/dev/null || echo 'The room did not boot.'
  exit "$(cat "$folder/code" 2>/dev/null || echo 70)"
fi

# shellcheck source=presets/tests/room/tree.sh
source "${0%/*}/tree.sh"

over_tree "$tree" "$folder"
proc_and_sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp
# An overlay on an overlay is not possible: Docker's layers lie in memory of their own.
mkdir -p var/lib/docker
mount -t tmpfs -o mode=710 none var/lib/docker
devices null zero full random urandom tty net/tun
mkdir room
mount --bind "$folder" room
for tool in "$folder"/bin/*; do
  if [[ -e $tool ]]; then install -m 0755 "$tool" usr/local/sbin/; fi
done
cat >etc/systemd/system/room.service <<UNIT
[Unit]
Description=What the test does
[Service]
Type=exec
ExecStart=/bin/bash -c 'code=0; /bin/bash /room/steps.sh </dev/null >/room/output 2>&1 || code=\$?; echo \$code >/room/code; systemctl poweroff -ff'
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 LC_ALL=C.UTF-8 TERM=dumb
UMask=0077
WorkingDirectory=/
UNIT
mkdir -p etc/systemd/system/multi-user.target.wants
ln -s ../room.service etc/systemd/system/multi-user.target.wants/room.service
ip link set lo up
mkdir .machine
pivot_root . .machine
umount -l /.machine
rmdir /.machine
umask 022
exec env -i container=room PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-level=warning </dev/null >/room/boot.log 2>&1
