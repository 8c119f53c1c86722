# Builds the image of a .deb by its recipe, on a base that is made of this machine's own programs,
# as no registry is asked, and tries it.
#
#   image.sh RECIPE DEB FOLDER
recipe=$1 deb=$2
cd "$3"
mkdir context base base/usr base/usr/bin base/usr/lib base/usr/lib64 base/tmp
for folder in bin lib lib64; do
    ln -s "usr/$folder" "base/$folder"
done
dpkg-deb --extract "$deb" package
for program in bash sh dpkg-deb tar ldd grep cp chown mkdir "$PWD/package/usr/bin/ringway"; do
    path=$(command -v "$program")
    [ "$program" = "$path" ] || cp "$path" base/usr/bin
    # A script has none.
    for library in $(ldd "$path" 2>/dev/null | grep -o '/[^ ]*'); do
        cp --parents --dereference "$library" base
    done
done
cp "$deb" context

build() {
    action=$1
    shift
    buildah --root "$PWD/store" --runroot "$PWD/run" --storage-driver vfs "$action" "$@"
}
container=$(build from scratch)
build copy --quiet "$container" base / >/dev/null
build commit --quiet "$container" base >/dev/null
build bud --quiet --isolation chroot --build-arg BASE=localhost/base --file "$recipe" \
    --tag ringway context >/dev/null 2>bud.log || { cat bud.log >&2; exit 1; }
container=$(build from ringway)
root=$(build mount "$container")
# As `buildah run` does, which has been seen to lose what a short program prints.
run() {
    chroot --userspec=999:999 --groups=108 "$root" /usr/bin/ringway "$@"
}
run --version
run config check /etc/ringway/ringway.toml
# It is the program, what it links to, and four small files.
find "$root" -type f | grep -vE '/(usr/bin/ringway|lib[^ ]*\.so[.0-9]*)$' | sed "s,^$root,," | sort
stat --format '%u:%a %n' "$root/run/ringway-switch" | sed "s,$root,,"
build inspect --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' "$container"
