# bash: completes the words of distbal(1). Candidates come from distbal itself, hosts and jobs from the daemon that runs here.
# For this shell alone: source <(distbal completion bash)

_distbal() {
    local line="${COMP_LINE:0:COMP_POINT}" current before found
    local -a words
    # COMP_WORDS are broken at colons, which names of hosts have
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current="${words[-1]}"
    COMPREPLY=()
    # what bash takes to be finished before the last colon is not to be said again
    before=""
    if [[ $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        before="${current%"${current##*:}"}"
        before="${before//\\/}"
    fi
    while IFS=$'\t' read -r found _; do
        if [[ $found == :files ]]; then
            compopt -o default
            return
        fi
        found="${found#"$before"}"
        COMPREPLY+=("$(printf %q "$found")")
    done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _distbal distbal
