#compdef distbal
# zsh: completes the words of distbal(1). Candidates come from distbal itself, hosts and jobs from the daemon that runs here.
# For this shell alone: source <(distbal completion zsh)

_distbal() {
    local line
    local -a found candidates
    found=("${(@f)$(${(Q)words[1]/#\~/$HOME} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    if [[ $found[1] == :files ]]; then
        _files
        return
    fi
    for line in $found; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe -V distbal candidates
}

if [[ $funcstack[1] == _distbal ]]; then
    _distbal "$@"
else
    compdef _distbal distbal
fi
