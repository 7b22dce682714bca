# Lists the recipes.
default:
    @just --list --justfile {{ justfile() }}

# Formats everything.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo fmt --manifest-path benches/rivals/Cargo.toml

# Warnings are errors.
lint:
    cargo clippy --all-features --all-targets -- -D warnings

# Runs all tests.
test:
    cargo test --all-features

# Threads under chosen schedules.
schedules:
    .ci/run schedules

# Builds the documentation.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps

# Checks each feature alone.
features:
    .ci/run features

# Licences, sources and advisories.
deny:
    cargo deny --all-features check

# Measures: `just bench store`, or all.
bench *name:
    cargo bench {{ if name == "" { "--benches" } else { "--bench " + name } }}

# Beside the stores that people would use instead, in a few minutes: `just rivals --quick`; all, and
# the report, without it.
rivals *arguments:
    cargo run --release --manifest-path benches/rivals/Cargo.toml -- {{ arguments }}

# Counts the instructions of a request's paths, and fails where they have become more.
instructions *arguments:
    cargo bench --bench instructions -- {{ arguments }}

# Runs each benchmark once.
bench-smoke:
    cargo bench --benches -- --test

# Stripe's own SDK against the reference server.
stripe-sdk:
    .ci/run stripe-sdk

# Tries to break a store in every way, for so long: `just soak 2h`.
soak time="1m" *arguments:
    cargo run --release -p refrain-proof -- --for {{ time }} {{ arguments }}

# As much of it as is tried before every change.
soak-ci:
    .ci/run soak

# Plants defects, and holds that each is caught: about half an hour.
planted *names:
    .ci/planted {{ names }}

# Changes the core in small ways, and holds that a test notices: `just mutants --sharding round-robin --shard 0/8`.
mutants *arguments:
    cargo mutants {{ arguments }}

# A minute of fuzzing, after the corpora.
fuzz-smoke:
    .ci/run fuzz-smoke

# Fuzzes one target until it finds something: record, key, fingerprint, log, segment or
# store.
fuzz target:
    cargo +nightly fuzz run {{ target }} -- -rss_limit_mb=6144

# Fills a store, kills it and measures its recovery.
million *arguments="--store target/million":
    cargo run --release -p refrain-examples --example million -- {{ arguments }}

# Everything that must hold before a change is merged.
ci:
    .ci/run
