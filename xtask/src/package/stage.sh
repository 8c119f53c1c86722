# Runs in mount, process, network and control group namespaces of its own: makes a system of them that
# shares the machine's programs and nothing that can be changed, and becomes its systemd.
# $1 is an empty folder, the others are packages.
set -eu
work=$1
shift

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# The kernel's settings are everybody's.
mount --bind -o ro /proc/sys /proc/sys

mount -t tmpfs stage "$work"
for folder in usr etc var; do
    mkdir "$work/$folder" "$work/$folder.work"
    mount -t overlay stage "/$folder" \
        -o "lowerdir=/$folder,upperdir=$work/$folder,workdir=$work/$folder.work"
done

# Of the machine's units those that a service needs, and none that would set up the machine.
units=/usr/lib/systemd/system
mkdir "$work/units"
for unit in basic.target sysinit.target sockets.target paths.target timers.target slices.target \
    shutdown.target umount.target network.target multi-user.target \
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    cp "$units/$unit" "$work/units/"
done
mount -t tmpfs stage "$units"
mv "$work/units"/* "$units/"
mkdir "$units/sysinit.target.wants"
ln -s ../systemd-journald.service ../systemd-journald-dev-log.socket "$units/sysinit.target.wants/"
for folder in /etc/systemd/system /usr/lib/systemd/system-generators; do
    mount -t tmpfs stage "$folder"
done
# As the first start has it.
rm -f /usr/sbin/policy-rc.d
# Whoever installs pages has the index of all pages of the machine made anew, which nobody reads here.
rm -f /var/lib/man-db/auto-update

mount -t tmpfs run /run
mkdir /run/packages
cp "$@" /run/packages/
touch /run/console
mount --bind /run/console /dev/console
mount -t tmpfs tmp /tmp

export container=ringway-stage
exec env -i container=ringway-stage PATH="$PATH" /lib/systemd/systemd --system \
    --unit=basic.target --log-target=console --show-status=no
