#!/bin/sh
# Builds hosts that Ansible can change as it likes: network namespaces on one bridge, each with a copy of this machine's files.
#   unshare --mount --net --pid --fork --mount-proc sh hosts.sh DIRECTORY NAME=ADDRESS...
# DIRECTORY has systemctl and sysctl, the stand-ins of the hosts, and gets run/NAME, the number of a process in that host.
# Prints "hosts are up" at the end.
# shellcheck disable=SC2016 # the inner shells expand their own arguments
set -e
directory="$1"
shift

mount -t tmpfs none "$directory/hosts"
mkdir "$directory/hosts/run"
ip link set lo up
ip link add bridge type bridge
ip link set bridge up
ip address add 198.51.100.1/24 dev bridge

echo '127.0.0.1 localhost' >"$directory/hosts/names"
for host; do
    echo "${host#*=} ${host%%=*}.example.org" >>"$directory/hosts/names"
done
# The control node is here: this is its DNS.
mount --bind "$directory/hosts/names" /etc/hosts

for host; do
    name="${host%%=*}"
    here="$directory/hosts/$name"
    root="$here/root"
    mkdir -p "$here/upper" "$here/work" "$root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$root"
    cp "$directory/systemctl" "$directory/sysctl" "$root/usr/bin/"
    rm -f "$root/usr/sbin/sysctl" "$root/usr/bin/hallpass"
    rm -rf "$root/etc/hallpass" "$root/etc/systemd/system/hallpass.service"
    cat "$directory/hosts/names" >"$root/etc/hosts"
    mkfifo "$here/up"
    unshare --mount --net --pid --uts --fork --kill-child sh -e -c '
        hostname "$2"
        mount --rbind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        mount -t tmpfs tmpfs "$1/run"
        mount -t tmpfs tmpfs "$1/tmp"
        mkdir -p "$1/run/systemd/system"
        ip link set lo up
        echo up >"$3"
        exec chroot "$1" sleep infinity' sh "$root" "$name" "$here/up" &
    outer=$!
    read -r _ <"$here/up"
    inner="$(cat "/proc/$outer/task/$outer/children")"
    inner="${inner% }"
    echo "$inner" >"$directory/hosts/run/$name"
    ip link add "to-$name" type veth peer name eth0 netns "$inner"
    ip link set "to-$name" master bridge up
    nsenter --target "$inner" --net sh -e -c '
        ip address add "$1/24" dev eth0
        ip link set eth0 up
        ip route add default via 198.51.100.1' sh "${host#*=}"
    nsenter --target "$inner" --mount --pid --net --root --wd sh -c '
        for user in hallpass bigbluebutton; do
            userdel "$user"
            groupdel "$user"
        done' >/dev/null 2>&1 || true
done
echo "hosts are up"
exec sleep infinity
