#!/usr/bin/env bash
# Installs the Debian packages given that are missing; says nothing if none is.
# FEDORA: their names there, printed where apt is not.
set -eu

if ! command -v apt-get >/dev/null; then
	echo "not a Debian system; on Fedora: dnf install ${FEDORA:-}"
	exit 0
fi
missing=()
for package in "$@"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
		missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing ${missing[*]}"
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	"${missing[@]}" >/dev/null
