//! Peak memory of one instance of both launchers, kernel memory included: `cargo bench --bench memory`.

mod common;

use common::{Lab, SIDES};
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Criterion measures time unless told what else there is: here, bytes that were charged to a cgroup.
struct Bytes;

impl Measurement for Bytes {
    type Intermediate = ();
    type Value = u64;

    fn start(&self) {}

    /// Nothing passes by itself: every value comes from `iter_custom`.
    fn end(&self, (): ()) -> u64 {
        0
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Kibibytes
    }
}

struct Kibibytes;

const KIBIBYTE: f64 = 1024.0;

impl ValueFormatter for Kibibytes {
    fn scale_values(&self, _typical: f64, values: &mut [f64]) -> &'static str {
        for value in values {
            *value /= KIBIBYTE;
        }
        "KiB"
    }

    fn scale_throughputs(&self, _typical: f64, _throughput: &Throughput, values: &mut [f64]) -> &'static str {
        self.scale_values(0.0, values)
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B"
    }
}

fn memory(criterion: &mut Criterion<Bytes>) {
    let lab = Lab::new();
    if let Some(reason) = lab.no_accounting() {
        eprintln!("skipped: no memory can be accounted here: {reason}");
        return;
    }
    let mut group = criterion.benchmark_group("peak memory");
    group.sample_size(10);
    for name in SIDES {
        let Some(contender) = lab.contender(name) else { continue };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|launches| (0..launches).map(|_| lab.peak(&*contender)).sum::<u64>());
        });
    }
    group.finish();
}

/// A launch takes tenths of a second to weigh and varies little: few iterations are enough.
fn few_launches() -> Criterion<Bytes> {
    Criterion::default().with_measurement(Bytes)
}

criterion_group!(name = benches; config = few_launches(); targets = memory);
criterion_main!(benches);
