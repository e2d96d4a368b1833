# verify only reads the tree; fix rewrites it. CI runs the same commands (.ci/run).
.PHONY: verify fix test lint docs deny bench-compile

verify: lint test docs bench-compile deny

test:
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench-compile:
	cargo bench --workspace --no-run

# Needs cargo-deny (cargo install --locked cargo-deny).
deny:
	cargo deny --offline check bans licenses sources

fix:
	UPDATE_GENERATED=1 cargo test --test generated
	UPDATE_COMPATIBILITY=1 cargo test --test compatibility
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
