#!/bin/sh
# Installs roleseal from this folder: from a source checkout once it is built, or from the tarball that `make package`
# makes. What is installed, and in which package it is, says the file `contents`.
set -eu

help() {
    cat <<END
Install roleseal: programs, systemd units, users, manual pages, completions.

usage: $0 [--prefix DIR] [--uninstall]

  --prefix DIR     where to install [default: /usr/local]
  --uninstall      remove what was installed there; keep configuration, certificates, keys and users
  --package NAME   only this package's files; may be repeated [default: all that are built]
  --destdir DIR    lay out the files below DIR, for a packager, and start nothing
END
}

fail() { # MESSAGE [HINT]
    echo "install.sh: $1" >&2
    [ -z "${2-}" ] || echo "hint: $2" >&2
    exit 1
}

packaging=$(dirname "$(readlink -f "$0")")
root=$(dirname "$packaging")
case $root in
*[[:space:]]*) fail "cannot install from $root: blanks in the path" "move this folder" ;;
esac
prefix=/usr/local destdir='' packages='' uninstall=''
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --destdir | --package) [ $# -ge 2 ] || { help >&2; exit 2; } ;;
    esac
    case $1 in
    --prefix) prefix=$2; shift 2 ;;
    --destdir) destdir=$2; shift 2 ;;
    --package) packages="$packages $2"; shift 2 ;;
    --uninstall) uninstall=yes; shift ;;
    -h | --help) help; exit 0 ;;
    *) help >&2; exit 2 ;;
    esac
done
case $prefix in
*[!A-Za-z0-9/._+-]*) fail "cannot install into $prefix: odd characters in the path" ;;
/*) prefix=${prefix%/} ;;
*) fail "cannot install into $prefix: not an absolute path" ;;
esac
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || fail "cannot install into $prefix: not root" "sudo $0"

# systemd looks for units, users and directories in /etc and below these two prefixes.
case $prefix in
/usr | /usr/local) lib=$prefix/lib ;;
*) lib=/etc ;;
esac

# A tarball holds programs and generated files, a checkout has built the ones and can make the others.
if [ -d "$root/bin" ]; then
    programs=$root/bin generated=$root/generated
else
    programs=${ROLESEAL_PROGRAMS:-$root/target/release} generated=${ROLESEAL_GENERATED-}
fi

contents() { # KIND: the packages that have such files, and the files
    grep -v -e '^#' -e '^$' "$packaging/contents" | while read -r package kind file; do
        [ "$kind" != "$1" ] || echo "$package $file"
    done
}

not_built() {
    contents program | while read -r package program; do
        [ "$package" != "$1" ] || [ -x "$programs/$program" ] || echo "$program"
    done
}

if [ -z "$packages" ]; then
    for package in $(contents program | cut -d' ' -f1 | sort -u); do
        missing=$(not_built "$package")
        if [ -z "$missing" ] || [ -n "$uninstall" ]; then
            packages="$packages $package"
        else
            echo "not built, not installed: $missing"
        fi
    done
fi
[ -n "$packages" ] || fail "cannot install from $programs: no programs there" "cargo build --release --workspace --bins"

if [ -z "$generated" ]; then
    generated=$(mktemp -d)
    trap 'rm -r "$generated"' EXIT
    [ -n "$uninstall" ] || "$packaging/generate" "$programs" "$generated"
fi

# Prints the mode, source and destination of each file of the packages.
plan() {
    grep -v -e '^#' -e '^$' "$packaging/contents" | while read -r package kind file; do
        case " $packages " in
        *" $package "*) ;;
        *) continue ;;
        esac
        name=$(basename "$file")
        case $kind in
        program) echo "755 $programs/$file $prefix/bin/$file" ;;
        unit | drop-in) echo "644 $packaging/$file $lib/systemd/system/$file" ;;
        user-unit) echo "644 $packaging/$file $lib/systemd/user/$file" ;;
        sysusers | tmpfiles) echo "644 $packaging/$file $lib/$kind.d/${name%.*}.conf" ;;
        example) echo "644 $packaging/examples/$file $prefix/share/doc/$package/examples/$file" ;;
        prometheus) echo "644 $packaging/prometheus/$file $prefix/share/doc/$package/prometheus/$file" ;;
        document) echo "644 $root/docs/$file $prefix/share/doc/$package/$file" ;;
        completion)
            echo "644 $generated/$file.bash $prefix/share/bash-completion/completions/$file"
            echo "644 $generated/_$file $prefix/share/zsh/site-functions/_$file"
            echo "644 $generated/$file.fish $prefix/share/fish/vendor_completions.d/$file.fish"
            ;;
        manual)
            for page in "$generated"/$file; do
                [ ! -e "$page" ] || echo "644 $page $prefix/share/man/man${page##*.}/${page##*/}"
            done
            ;;
        *) fail "cannot read $packaging/contents: unknown kind $kind" ;;
        esac
    done
}

systemd_runs() { [ -z "$destdir" ] && [ -d /run/systemd/system ]; }

units() { contents unit | sed -n 's/^[^ ]* \([^@]*\)$/\1/p'; }

if [ -n "$uninstall" ]; then
    ! systemd_runs || systemctl --quiet disable --now $(units) 2>/dev/null || true
    plan | while read -r mode source destination; do
        rm -f "$destdir$destination"
        rmdir -p --ignore-fail-on-non-empty "$(dirname "$destdir$destination")" 2>/dev/null || true
    done
    ! systemd_runs || systemctl daemon-reload
    echo "removed from $prefix:$packages"
    echo "kept: /etc/roleseal, /var/lib/roleseal and the users that own files there"
    exit 0
fi

plan | while read -r mode source destination; do
    install -D -m "$mode" "$source" "$destdir$destination"
    case $destination in
    */systemd/*) sed -i -e "s#/usr/bin/roleseal#$prefix/bin/roleseal#" \
        -e "s#/usr/share/doc/#$prefix/share/doc/#" "$destdir$destination" ;;
    esac
done
[ -z "$destdir" ] || exit 0

echo "installed into $prefix:$packages"
! command -v systemd-sysusers >/dev/null || systemd-sysusers $(plan | sed -n 's/.* \(.*sysusers\.d.*\)/\1/p')
! command -v systemd-tmpfiles >/dev/null || systemd-tmpfiles --create $(plan | sed -n 's/.* \(.*tmpfiles\.d.*\)/\1/p')
for unit in $(units); do
    [ "$lib" = /etc ] || [ ! -e "/etc/systemd/system/$unit" ] || echo "warning: /etc/systemd/system/$unit overrides $lib/systemd/system/$unit"
done
if systemd_runs; then
    systemctl daemon-reload
    systemctl reset-failed $(units) 2>/dev/null || true
    # Not roleseal-renew, which may be waiting for a CA.
    systemctl try-restart $(units | grep 'service$' | grep -v '^roleseal-renew') || true
    echo "running services of roleseal were restarted; sockets were not"
fi
cat <<END
next: write /etc/roleseal/agent.toml (example: $prefix/share/doc/roleseal-agent/examples/agent.toml), then
  $prefix/bin/roleseal-agent --check
  systemctl enable --now roleseal-agent.socket roleseal-agent.service roleseal-renew.timer
END
