# Makes the room and runs /room/steps.sh in it: bash enter.sh TREE FOLDER, in namespaces of its own.
# FOLDER is /room inside: what the steps write there is all that outlives the room.
set -eu
tree=$1 folder=$2
mount --make-rprivate /
over=$folder/over
mkdir -p "$over"
mount -t tmpfs -o mode=755 none "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay none -o "lowerdir=$tree,upperdir=$over/upper,workdir=$over/work" "$over/root"
cd "$over/root"

mount -t proc none proc
# Only what is the room's own may be set: these would be the machine's.
for settings in kernel vm fs dev user; do
  if [[ -d proc/sys/$settings ]]; then
    mount --bind "proc/sys/$settings" "proc/sys/$settings"
    mount -o remount,bind,ro "proc/sys/$settings"
  fi
done
mount -t sysfs -o ro none sys
mount -t tmpfs -o mode=755 none dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 none dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mount -t tmpfs -o mode=1777 none dev/shm
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
