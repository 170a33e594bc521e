//! The exercises: each chapter's stub fails its check, and the kept solution passes it.
//!
//! To solve one, change `exercises/NAME/stub.rs` and run the check on it (`median` here is any part of the name):
//! `cargo test -p book --test exercises median -- --ignored`. Once it passes, `the_stub_fails` no longer does: put the stub back
//! (`git checkout`), or keep your solution and know why.

use std::panic;

/// One exercise: a folder with `stub.rs`, `solution.rs`, and `check.rs`, whose `check()` panics unless what it is given is right.
macro_rules! exercise {
    ($name:ident, $folder:literal) => {
        #[allow(
            dead_code,
            unused_variables,
            missing_docs,
            clippy::expect_used,
            clippy::unwrap_used
        )]
        mod $name {
            mod stub {
                include!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/exercises/",
                    $folder,
                    "/stub.rs"
                ));
                include!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/exercises/",
                    $folder,
                    "/check.rs"
                ));
            }

            mod solution {
                include!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/exercises/",
                    $folder,
                    "/solution.rs"
                ));
                include!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/exercises/",
                    $folder,
                    "/check.rs"
                ));
            }

            #[test]
            fn the_stub_fails() {
                let outcome = super::panic::catch_unwind(stub::check);
                assert!(
                    outcome.is_err(),
                    "{} is solved: its stub passes the check",
                    $folder
                );
            }

            #[test]
            fn the_solution_passes() {
                solution::check();
            }

            #[test]
            #[ignore = "for you to solve: cargo test -p book --test exercises -- --ignored"]
            fn yours() {
                stub::check();
            }
        }
    };
}

exercise!(finish_line, "01-finish-line");
exercise!(median, "02-median");
exercise!(status, "03-status");
exercise!(backend, "04-backend");
exercise!(vcpu_loop, "05-loop");
exercise!(walk, "06-walk");
exercise!(memory_map, "07-memory-map");
exercise!(ledger, "08-ledger");
exercise!(clone, "09-clone");
exercise!(shared_namespaces, "10-shared-namespaces");
exercise!(throttled, "11-throttled");
exercise!(look_up, "12-lookup");
exercise!(cache_key, "13-cache-key");
exercise!(addresses, "14-addresses");
exercise!(states, "15-states");
exercise!(capabilities, "17-capabilities");
exercise!(slope, "16-slope");
exercise!(tenants, "18-tenants");
