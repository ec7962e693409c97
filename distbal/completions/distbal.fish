# fish: completes the words of distbal(1). Candidates come from distbal itself, hosts and jobs from the daemon that runs here.
# For this shell alone: distbal completion fish | source

function __distbal_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found (command $words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    if test "$found[1]" = :files
        __fish_complete_path "$current"
    else if set -q found[1]
        printf '%s\n' $found
    end
end

complete -c distbal -f -k -a '(__distbal_complete)'
