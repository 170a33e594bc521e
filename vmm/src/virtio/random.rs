//! Random bytes: the simplest device there is, and the one to read first.
//!
//! What the guest writes: nothing. It offers empty buffers. What the host answers: buffers full of getrandom(2). A kernel in a
//! VM has few surprises of its own to gather randomness from: the same image, the same memory, a clock that may stand still
//! between snapshot and clone.
//!
//! What it costs: 3 exits for each request, the notification and the interrupt's two ([`crate::virtio`]). Linux asks for
//! 64 bytes at a time, and for a few in advance: 16 reads of 64 bytes from /dev/hwrng were 17 requests, 51 exits.

use super::device::Device;
use super::queue::{Malformed, Queues};
use crate::random;

/// The device.
pub struct Random;

/// Virtio 1.2, section 5.4.
const ID: u32 = 4;
const QUEUE: usize = 0;
/// Most bytes for one request. The guest may offer gigabytes; used bytes say how many it got.
const MOST: usize = 64 << 10;
/// What [`random::fill`] draws at once.
const AT_ONCE: usize = 256;

impl Device for Random {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &[8]
    }

    fn serve(&mut self, _: usize, queues: &mut Queues<'_>) -> Result<(), Malformed> {
        for _ in 0..queues.size(QUEUE) {
            let Some(mut chain) = queues.take(QUEUE)? else { break };
            let mut written = 0;
            let mut room = chain.writable.split_off_front(MOST);
            while !room.is_empty() {
                let mut bytes = [0; AT_ONCE];
                let wanted = room.length().min(AT_ONCE);
                // Fewer bytes, or none, but never any that are not random.
                if random::fill(&mut bytes[..wanted]).is_err() {
                    break;
                }
                written += room.write(&bytes[..wanted]);
            }
            queues.give_back(QUEUE, &chain, written)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{BUFFERS, Driver};
    use super::*;

    #[test]
    fn buffers_are_filled_to_the_last_byte_and_no_two_alike() {
        let mut driver = Driver::started(Box::new(Random));
        driver.request(QUEUE, &[(BUFFERS, 300), (BUFFERS + 300, 0), (BUFFERS + 400, 212)], 0);
        assert_eq!(driver.done(QUEUE), [(0, 512)]);
        let (first, between, second) = (
            driver.get(BUFFERS, 212),
            driver.get(BUFFERS + 300, 100),
            driver.get(BUFFERS + 400, 212),
        );
        assert!(between.iter().all(|&byte| byte == 0) && first != second);
        assert!(first.iter().any(|&byte| byte != 0) && second.iter().any(|&byte| byte != 0));
    }

    #[test]
    fn a_request_gets_so_much_at_most_and_readable_buffers_nothing() {
        let mut driver = Driver::started(Box::new(Random));
        driver.request(QUEUE, &[(0x2_0000, MOST as u32 + 1)], 0);
        assert_eq!(driver.done(QUEUE), [(0, MOST as u32)]);
        driver.put(BUFFERS, &[7; 64]);
        driver.request(QUEUE, &[(BUFFERS, 64)], 1);
        assert_eq!(driver.done(QUEUE), [(0, 0)]);
        assert_eq!(driver.get(BUFFERS, 64), [7; 64]);
    }
}
