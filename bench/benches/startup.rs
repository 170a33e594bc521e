//! Start-up of both launchers, from the start line to the finish line: `cargo bench --bench startup`.
//!
//! Criterion measures one side after the other and without idle gaps; use `lab compare` to compare the two.

mod common;

use std::time::Duration;

use common::{Lab, SIDES};
use criterion::{Criterion, criterion_group, criterion_main};

fn startup(criterion: &mut Criterion) {
    let lab = Lab::new();
    let mut group = criterion.benchmark_group("startup");
    group.sample_size(20);
    for name in SIDES {
        let Some(contender) = lab.contender(name) else { continue };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|launches| (0..launches).map(|_| lab.start(&*contender)).sum::<Duration>());
        });
    }
    group.finish();
}

criterion_group!(benches, startup);
criterion_main!(benches);
