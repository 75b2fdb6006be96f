#!/bin/bash
# Puts packages into a bare tree: bash fill.sh TREE "INSTALLED ..." "DOWNLOADED ..." "FETCHED ..."
# FETCHED are downloaded at one go and without what they recommend.
# Runs in mounts and processes of its own, with the machine's network.
set -eu
tree=$1
mount --make-rprivate /
mount --bind "$tree" "$tree"
mount -t proc none "$tree/proc"
mount -t tmpfs none "$tree/dev/shm"
for proxy in Acquire::http::Proxy Acquire::https::Proxy; do
  apt-config dump --format '%f "%v";%n' "$proxy" 2>/dev/null | sed -n '/ "..*";$/p'
done >"$tree/etc/apt/apt.conf.d/90proxy"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
# Nothing is started while packages are put in, and nobody waits for the disk: a broken tree is thrown away.
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"
printf '%s\n' force-unsafe-io path-exclude=/usr/share/{man,doc,locale}/* >"$tree/etc/dpkg/dpkg.cfg.d/room"

inside() { chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
get() { inside apt-get -y -q --no-install-recommends "$@"; }
get update
# shellcheck disable=SC2086  # lists of words
get install $2
inside apt-get clean
for package in $3; do
  get install --download-only "$package"
  get install --download-only --install-recommends "$package"
done
# shellcheck disable=SC2086  # a list of words
if [[ -n $4 ]]; then get install --download-only $4; fi

# apt reads the whole list at every call: only what can be installed here is left in it.
# shellcheck disable=SC2016  # dpkg-query's own format
names=$(inside dpkg-query -W -f '${Package}\n' && find "$tree/var/cache/apt/archives" -name '*.deb' -printf '%f\n' | cut -d _ -f 1)
for list in "$tree"/var/lib/apt/lists/*_Packages; do
  names=$names awk '
    BEGIN { RS = ""; ORS = "\n\n"; count = split(ENVIRON["names"], all, "\n"); for (i = 1; i <= count; i++) wanted[all[i]] = 1 }
    { split($0, line, "\n"); if (substr(line[1], 10) in wanted) print }
  ' "$list" >"$list.short"
  mv "$list.short" "$list"
done
rm -f "$tree"/var/cache/apt/*.bin
inside apt-cache gencaches

rm -f "$tree/usr/sbin/policy-rc.d" "$tree/etc/resolv.conf" "$tree/etc/apt/apt.conf.d/90proxy"
rm -f "$tree"/etc/ssh/ssh_host_*_key*
inside ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
# A room has no network: what apt does not find in its cache it need not try again.
echo 'Acquire::Retries "0";' >"$tree/etc/apt/apt.conf.d/90room"
echo room >"$tree/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\troom\n' >"$tree/etc/hosts"
