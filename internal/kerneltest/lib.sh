# What internal/kerneltest/run and internal/vsockvm/run have in common: tools and
# kernels from Debian, and initramfs images around busybox. The caller is a bash
# script with set -euo pipefail that has set
#
#   cache  the folder for what it makes
#   store  the folder of unpacked kernel packages, which both share
#
# and defines skip, which says in one line why nothing can be run, and ends.
# shellcheck shell=bash disable=SC2154

# install_tools COMMAND:PACKAGE...: makes sure that the commands exist, installing
# their packages as root.
install_tools() {
	local missing=() pair
	for pair in "$@"; do
		[ -n "$(type -P "${pair%:*}")" ] || missing+=("${pair#*:}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ -n "$(type -P apt-get)" ] || skip "missing ${missing[*]}, and no apt-get to install them"
	[ "$(id -u)" = 0 ] || skip "missing packages; run: sudo apt-get install ${missing[*]}"
	apt-get update -qq >/dev/null 2>&1 || true
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
		skip "apt-get install ${missing[*]} failed"
}

# newest SERIES [APT OPTIONS]: name of the newest cloud kernel package of a series such as 6.1.
newest() {
	local series=$1
	shift
	apt-cache "$@" search --names-only "^linux-image-${series//./\\.}\\.[0-9].*-cloud-amd64\$" 2>/dev/null |
		cut -d' ' -f1 | grep -v -- -unsigned | sort -V | tail -n 1 || true
}

# backports_options: apt options that see only the backports suite of this
# release, on the mirror that apt already uses; nothing outside the cache changes.
backports_options() {
	local lists=$cache/apt site codename
	# shellcheck disable=SC1091
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# shellcheck disable=SC2016 # apt expands it
	site=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" 'Created-By: Packages' 2>/dev/null | head -n 1)
	[ -n "$site" ] && [ -n "$codename" ] || return 1
	mkdir -p "$lists/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $codename-backports main" >"$cache/backports.list"
	backports=(-o "Dir::Etc::SourceList=$cache/backports.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$lists")
	apt-get "${backports[@]}" update -qq >/dev/null 2>&1
}

# offered SERIES: sets package to the newest that apt can see, or to one that was
# downloaded before, and options to what apt-get needs to download it.
offered() {
	local series=$1
	options=()
	package=$(newest "$series")
	if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
		apt-get update -qq >/dev/null 2>&1 || true
		package=$(newest "$series")
	fi
	if [ -z "$package" ] && backports_options; then
		options=("${backports[@]}")
		package=$(newest "$series" "${options[@]}")
	fi
	if [ -z "$package" ]; then # no network, perhaps
		package=$(find "$store" -maxdepth 1 -name "linux-image-$series.*" ! -name '*.new' -printf '%f\n' 2>/dev/null | sort -V | tail -n 1) || true
	fi
	[ -n "$package" ]
}

# fetch_kernel SERIES: sets tree to the unpacked package and version to its
# version; fails if there is none.
fetch_kernel() {
	local package options
	tree=
	offered "$1" || return 1
	version=${package#linux-image-}
	tree=$store/$package
	[ ! -f "$tree/boot/vmlinuz-$version" ] || return 0
	rm -rf "$tree" "$cache/download"
	mkdir -p "$store" "$cache/download"
	(cd "$cache/download" && apt-get "${options[@]}" download -qq "$package" >/dev/null 2>&1) || return 1
	dpkg -x "$cache"/download/*.deb "$tree.new"
	mv -T "$tree.new" "$tree"
	rm -rf "$cache/download"
}

# modules DIR NAME...: copies kernel modules, uncompressed; absent ones are left out.
modules() {
	local dir=$1 name file
	shift
	mkdir -p "$dir"
	for name in "$@"; do
		file=$(find "$tree/lib/modules" -name "$name.ko*" | head -n 1)
		case $file in
		*.ko) cp "$file" "$dir/" ;;
		*.ko.xz) xz -dc "$file" >"$dir/$name.ko" ;;
		esac
	done
}

# busybox_tree DIR INIT: the part that every initramfs has.
busybox_tree() {
	rm -rf "$1"
	mkdir -p "$1"/{bin,dev,proc,sys,tmp}
	cp "$(type -P busybox)" "$1/bin/busybox"
	ln -s busybox "$1/bin/sh"
	install -m 755 "$2" "$1/init"
}

# archive DIR FILE: packs a tree as an initramfs, uncompressed: unpacking is the slow part.
archive() { (cd "$1" && find . | cpio -o -H newc -R 0:0 --quiet) >"$2"; }
