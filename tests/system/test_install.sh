#!/usr/bin/env bash
# `make install` and `make uninstall` into a directory of their own.
# Runs beside others.
. "$(dirname "$0")/lib.sh"
cd "$tests/.." || exit
to=$work/to
check "install" env -u O make DESTDIR="$to" PREFIX=/usr install
find "$to" -type f | sed "s|$to||" | sort >"$work/files"
cat >"$work/wanted" <<'END'
/usr/bin/cprof-attach
/usr/share/bash-completion/completions/cprof-attach
/usr/share/fish/vendor_completions.d/cprof-attach.fish
/usr/share/man/man1/cprof-attach.1
/usr/share/zsh/site-functions/_cprof-attach
END
check "the files" diff "$work/wanted" "$work/files"
check "the program runs" "$to/usr/bin/cprof-attach" -V
check "uninstall" env -u O make DESTDIR="$to" PREFIX=/usr uninstall
check "nothing is left" test -z "$(find "$to" -type f)"
finish
