#!/usr/bin/env bash
# Clones, commits and collects garbage. $1: the repository to clone.
set -eu
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
round=0
while :; do
    rm -rf "clone.$round"
    git clone -q --no-hardlinks "$1" "clone.$round"
    for commit in 1 2 3 4 5 6; do
        head -c $((RANDOM % 9000)) /dev/urandom >"clone.$round/file.$((RANDOM % 20))"
        git -C "clone.$round" add -A
        git -C "clone.$round" commit -q --allow-empty -m "commit $commit"
    done
    git -C "clone.$round" checkout -q -b "side$RANDOM" HEAD~2
    git -C "clone.$round" gc -q
    round=$(((round + 1) % 2))
done
