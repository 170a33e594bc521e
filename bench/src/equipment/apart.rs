//! The two ends of a network lesson on processors of their own: the peer has one to itself, the program that is measured has all others.
//!
//! Left to the scheduler they are sometimes put side by side on one processor and sometimes apart, and stay as they are while the
//! connection lasts. To wake somebody on the same processor is cheap and on another, idle one it is not: one exchange over
//! loopback took 12 us or 39 where this was written. A median over such runs tells which choice was made more often, and
//! looks like a difference between the contenders.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, as sched_setaffinity(2) names it.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Who may run where.
#[derive(Clone, Copy)]
pub struct Apart {
    /// The peer's processor.
    peer: usize,
    /// Where the lab itself may run.
    all: CpuSet,
}

impl Apart {
    /// Gives the peer the last of the processors that the calling thread may use. None where there is but one.
    ///
    /// # Errors
    /// sched_getaffinity(2)'s: EINVAL on a machine of more processors than a [`CpuSet`] has room for.
    pub fn on_this_machine() -> nix::Result<Option<Apart>> {
        let all = sched_getaffinity(THIS_THREAD)?;
        let allowed: Vec<usize> = (0..CpuSet::count())
            .filter(|&cpu| all.is_set(cpu) == Ok(true))
            .collect();
        Ok(match allowed[..] {
            [_, .., peer] => Some(Apart { peer, all }),
            _ => None,
        })
    }

    /// The peer's processor, by its number.
    pub fn peer(&self) -> usize {
        self.peer
    }

    /// Does something with the calling thread on the peer's processor; threads started meanwhile stay there.
    ///
    /// # Errors
    /// sched_setaffinity(2)'s.
    pub fn as_the_peer<T>(&self, act: impl FnOnce() -> T) -> nix::Result<T> {
        let mut its = CpuSet::new();
        its.set(self.peer)?;
        self.on(&its, act)
    }

    /// Does something with the calling thread on the other processors; what it launches meanwhile stays there.
    ///
    /// # Errors
    /// sched_setaffinity(2)'s.
    pub fn as_a_program<T>(&self, act: impl FnOnce() -> T) -> nix::Result<T> {
        let mut others = self.all;
        others.unset(self.peer)?;
        self.on(&others, act)
    }

    fn on<T>(&self, processors: &CpuSet, act: impl FnOnce() -> T) -> nix::Result<T> {
        sched_setaffinity(THIS_THREAD, processors)?;
        let done = act();
        sched_setaffinity(THIS_THREAD, &self.all)?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_never_meet_and_the_lab_is_where_it_was() {
        let before = sched_getaffinity(THIS_THREAD).unwrap();
        let Some(apart) = Apart::on_this_machine().unwrap() else {
            println!("skipped: this machine has one processor");
            return;
        };
        let mine = || sched_getaffinity(THIS_THREAD).unwrap();
        let peers = apart.as_the_peer(|| std::thread::spawn(mine).join().unwrap()).unwrap();
        let programs = apart.as_a_program(mine).unwrap();
        for cpu in 0..CpuSet::count() {
            let (peers, programs) = (peers.is_set(cpu).unwrap(), programs.is_set(cpu).unwrap());
            assert_eq!(peers, cpu == apart.peer());
            assert_eq!(peers || programs, before.is_set(cpu).unwrap());
            assert!(!(peers && programs));
        }
        assert_eq!(mine(), before);
    }
}
