#!/usr/bin/env bash
# Man page, README and completions name every option of the table (which --help prints), and no
# other; the man page and the completions are well formed.
# Runs beside others.
. "$(dirname "$0")/lib.sh"
root=$tests/..
man=$root/man/cprof-attach.1
complete=$root/completions

for verb in "" record run threads memtrace detach report view help; do
	# shellcheck disable=SC2086
	"$cprof" $verb --help >"help.${verb:-none}"
	check "help of '$verb' has options" grep -q -- --version "help.${verb:-none}"
done
long_of() { grep -ohE '^  (-.,|   ) --[a-z-]+' "$@" | grep -oE -- '--[a-z-]+' | sort -u; }
short_of() { grep -ohE '^  -[A-Za-z],' "$@" | tr -d ' ,' | sort -u; }
long_of help.* >long
short_of help.* >short
check "the table has been read" test "$(wc -l <long)" -gt 20 -a "$(wc -l <short)" -gt 8

has() { # FILE TEXT: as a word
	grep -qE -- "(^|[^a-z-])$2([^a-z-]|\$)" "$1"
}
sed 's/\\-/-/g' "$man" >man.txt
while read -r option; do
	check "man page" has man.txt "$option"
	check "README" has "$root/README.md" "$option"
	check "bash completion" has "$complete/cprof-attach.bash" "$option"
	check "zsh completion" has "$complete/_cprof-attach" "$option"
	check "fish completion" has "$complete/cprof-attach.fish" "-l ${option#--}"
done <long
while read -r option; do
	check "man page" has man.txt "$option"
	check "README" has "$root/README.md" "$option"
	check "bash completion" has "$complete/cprof-attach.bash" "$option"
	check "zsh completion" has "$complete/_cprof-attach" "$option"
	check "fish completion" has "$complete/cprof-attach.fish" "-s ${option#-}"
done <short

# Nothing that does not exist.
for file in man.txt "$complete/cprof-attach.bash" "$complete/_cprof-attach"; do
	grep -oE '(^|[^a-zA-Z0-9_-])--[a-z][a-z-]+' "$file" | grep -oE -- '--[a-z-]+' | sort -u |
		comm -23 - long >extra
	check "$(basename "$file") names unknown options: $(tr '\n' ' ' <extra)" test ! -s extra
done
grep '^\s*complete' "$complete/cprof-attach.fish" | grep -oE -- '-l [a-z-]+' | sed 's/-l /--/' | sort -u | comm -23 - long >extra
check "fish names unknown options: $(tr '\n' ' ' <extra)" test ! -s extra

# Bash: what is really offered for each verb.
offered() { # VERB
	bash -c '. "$1"; COMP_WORDS=(cprof-attach "$2" -); COMP_CWORD=2; _cprof_attach
		printf "%s\n" "${COMPREPLY[@]}"' - "$complete/cprof-attach.bash" "$1" | grep -E -- '-[a-zA-Z]' | sort -u
}
for verb in record run threads memtrace detach report view help; do
	{ long_of "help.$verb"; short_of "help.$verb"; } | sort -u >wanted
	offered "$verb" >got
	check "bash completion of $verb: $(comm -3 wanted got | tr '\n\t' '  ')" cmp -s wanted got
done

for shell in bash:cprof-attach.bash zsh:_cprof-attach fish:cprof-attach.fish; do
	if command -v "${shell%:*}" >/dev/null; then
		check "${shell#*:}" "${shell%:*}" -n "$complete/${shell#*:}"
	else
		skip "no ${shell%:*}"
	fi
done
if command -v man >/dev/null; then
	LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l -Tutf8 "$man" >page 2>warnings
	check "man page without warnings: $(head -n 3 warnings)" test ! -s warnings
else
	skip "no man"
fi
finish
