//! A machine from a snapshot: the same recipe as [`vm`], with what took the time left out. No kernel is loaded and
//! none boots; memory, registers and controllers are as they were, and the guest does not notice.

use std::path::PathBuf;

use protocol::marks::Marks;
use protocol::phase::Phase;

use crate::bus::Bus;
use crate::input::{Gate, Waker};
use crate::interrupts::{self, Line};
use crate::machine::{Kind, Machine};
use crate::ports::Ports;
use crate::processors::Processor;
use crate::sandbox::Sandbox;
use crate::serial::Serial;
use crate::vcpu::End;
use crate::vm::{self, Error};
use crate::watch::Watch;
use crate::{footprint, mapped, memory, processors, serial, snapshot, virtio};

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The snapshot.
    pub file: PathBuf,
    /// Where phases are reported.
    pub marks: Marks,
    /// Copy every page of the snapshot before the guest runs, instead of when it first writes there.
    pub prefault: bool,
    /// Say on standard error how many page faults the guest's run took.
    pub count_faults: bool,
    /// Filter the system calls of every thread meanwhile.
    pub seccomp: bool,
}

/// Builds the machine, runs the guest to its end and says how it ended.
pub fn run(options: &Options) -> Result<End, Error> {
    let (file, marks) = (&*options.file, options.marks);
    let snapshot::Opened {
        file: image,
        state,
        memory_at,
    } = snapshot::open(file)?;
    let here = snapshot::processor_signature();
    if here != state.processor {
        return Err(Error::Snapshot(snapshot::Error::Processor {
            path: file.into(),
            found: state.processor,
            here,
        }));
    }

    let kvm = vm::open_kvm()?;
    marks.mark(Phase::KvmOpened);
    let vm = vm::create(&kvm)?;
    marks.mark(Phase::VmCreated);

    mapped::SNAPSHOT.expect().map_err(Error::Mapped)?;
    let memory = memory::reserve(state.memory)?;
    let mut offset = memory_at;
    for run in &state.runs {
        memory::map_file(&memory, run.start, &image, offset, run.length(), &mapped::SNAPSHOT)?;
        offset += run.length();
    }
    drop(image);
    if options.prefault {
        for run in &state.runs {
            memory::populate(&memory, run.start, run.length())?;
        }
    }
    memory::give_to(&vm, &memory)?;
    if let Some(address) = state.random {
        snapshot::draw_anew(&memory, address)?;
    }
    marks.mark(Phase::MemoryMapped);

    let (serial, input) = match &state.pc {
        None => (Serial::polled(state.console), None),
        Some(pc) => {
            interrupts::make_controllers(&vm)?;
            let waker = Waker::new().map_err(Error::Waker)?;
            let gate = Gate::new(waker.clone(), true);
            let line = Line::connect(&vm, serial::LINE)?;
            let takes_input = !state.devices.iter().any(|(spec, _)| *spec == virtio::Spec::Console);
            let serial_gate = takes_input.then(|| gate.clone());
            (
                Serial::restored(state.console, line, waker.clone(), serial_gate, &pc.serial)?,
                Some((waker, gate)),
            )
        }
    };
    let mut processors = Vec::with_capacity(state.vcpus.len());
    for number in 0..state.vcpus.len() {
        let vcpu = vm::create_vcpu(&vm, number as u64)?;
        let watch = Watch::default();
        processors.push(Processor { vcpu, watch });
    }
    for (processor, state) in processors.iter().zip(&state.vcpus) {
        state.give_to(&processor.vcpu)?;
    }
    if let Some(pc) = &state.pc {
        pc.give_to(&vm)?;
    }
    let bus = match &input {
        None => Bus::default(),
        Some((waker, gate)) => {
            let surroundings = virtio::Surroundings {
                vm: &vm,
                memory: &memory,
                waker,
                gate,
                marks,
            };
            let (specs, states): (Vec<_>, Vec<_>) = state.devices.into_iter().unzip();
            let bus = virtio::attach(&specs, &surroundings)?;
            for (mut device, state) in bus.devices().zip(&states) {
                device.restore(state)?;
            }
            bus
        }
    };
    let mut ports = Ports::new(memory.clone(), serial, marks);
    ports.restored(state.generation.saturating_add(1), state.spoke);
    let machine = Machine::new(memory, ports, bus);
    let sandbox = Sandbox::prepare(options.seccomp, state.kind == Kind::Pc, options.count_faults)?;
    if state.kind == Kind::Pc {
        footprint::forget_set_up();
    }
    marks.mark(Phase::VcpuReady);

    let faults_before = options.count_faults.then(memory::faults_so_far);
    let end = match (&input, state.kind) {
        (Some((waker, _)), Kind::Pc) => processors::run_all(&mut processors, &machine, waker, sandbox)?,
        _ => processors::run_one(&mut processors[0], &machine, sandbox)?,
    };
    marks.mark(Phase::Exit);
    if let Some(before) = faults_before {
        eprintln!(
            "vmm: {} page faults while the guest ran",
            memory::faults_so_far() - before
        );
    }
    Ok(end)
}
