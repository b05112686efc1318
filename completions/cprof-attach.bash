# SPDX-License-Identifier: MIT
# bash completion for cprof-attach

_cprof_attach_pids() {
	local status pid
	for status in /proc/[0-9]*; do
		pid=${status#/proc/}
		[ -e "$status/exe" ] && echo "$pid"
	done
}

_cprof_attach() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local verb=${COMP_WORDS[1]} words="" take live

	take="--thread -e --event -d --duration -F --rate --heap-rate --block-min --block-rate --mutex-rate --mutex-side --sampling -o --output -f --format
		--stats --snapshot-every --unwinder --debug-dir --no-inlines --no-lines --no-kernel
		--color -q --quiet -v --verbose -h --help -V --version"
	live="-p --pid --thread -e --event -F --rate --heap-rate --block-min --block-rate --mutex-rate --mutex-side --sampling
		--unwinder --debug-dir --no-inlines --no-lines --no-kernel --focus --refresh --source-path
		--headless --keys --frames --color -q --quiet -v --verbose -h --help -V --version"
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		words="record run threads dump memtrace detach report view help $live"
	else
		case $previous in
		-p | --pid) words=$(_cprof_attach_pids) ;;
		-e | --event) words="cpu cycles heap mutex block threads threadcreate" ;;
		--mutex-side) words="holder waiter" ;;
		--sampling) words="auto cpu-wide per-thread" ;;
		-f | --format) words="pprof folded text json" ;;
		--unwinder) words="cfi fp libunwind" ;;
		--color) words="auto always never" ;;
		--by) words="function line address" ;;
		--mutex-side) words="holder waiter" ;;
		-o | --output | --stats | --base | --source-path) ;;
		--debug-dir)
			mapfile -t COMPREPLY < <(compgen -d -- "$current")
			return
			;;
		-d | --duration | -F | --rate | --heap-rate | --block-min | --block-rate | --thread | --snapshot-every | --watch | -n | --count | --lines | -i | --interval | --leak-threads | --leak-heap | \
			--sample-index | --focus | --ignore | --headless | --keys | --frames | --refresh | --mutex-rate) return ;;
		*)
			case $verb in
			record) words="-p --pid $take" ;;
			run) words="$take --" ;;
			threads | dump) words="-p --pid --thread --stats -o --output -f --format --json
				--all --watch --debug-dir --no-inlines --no-lines --color -q --quiet
				-v --verbose -h --help -V --version" ;;
			memtrace) words="-p --pid -i --interval -n --lines --no-inject --leak-threads
				--leak-heap -F --rate --heap-rate --debug-dir --color -q --quiet -v --verbose -h --help
				-V --version --" ;;
			detach) words="-p --pid --check -q --quiet -v --verbose -h --help -V --version" ;;
			report) words="top tree peek list traces folded locks -o --output -f --format --sample-index --base --source-path
				--cum -n --count --focus --ignore --by --color -q --quiet -v --verbose -h --help
				-V --version" ;;
			view) words="--sample-index --base --focus --source-path --headless --keys --frames
				--color -q --quiet -v --verbose -h --help -V --version" ;;
			-*) words=$live ;;
			help) words="record run threads dump memtrace detach report view help -h --help -V --version" ;;
			esac
			;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	if [ ${#COMPREPLY[@]} -eq 0 ]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	fi
}
complete -o filenames -F _cprof_attach cprof-attach
