# What a developer of reelfs runs. `just` alone lists it.

_default:
    @just --list

# format, lints, tests, documentation: what CI runs
check:
    .ci/run

# all tests, or those whose name contains FILTER; as root they include loop devices
test FILTER="":
    cargo test --workspace {{FILTER}}

# paired benchmarks against the backing directory and bindfs, printed as ratios
bench *ARGS:
    cargo bench --bench mount -- {{ARGS}}
    cargo bench --bench programs -- {{ARGS}}
    cargo bench --bench sustained
    cargo bench --bench tapes -- {{ARGS}}

# the whole story on temporary directories, in under a minute
demo:
    cargo run --release -- demo

# the long forms of the tests (hours)
soak:
    REELFS_SOAK=1 REELFS_CI=1 cargo test --release --workspace -- --nocapture

# licences, advisories and sources of what we depend on
deny:
    cargo deny check
