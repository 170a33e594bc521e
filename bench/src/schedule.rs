//! The order of the launches.
//!
//! A machine drifts: clocks change, caches fill, neighbours wake. Contenders measured in blocks would each get a piece
//! of that drift for their own. So every round launches every contender once, in an order drawn by lot, and the next
//! round takes the same order backwards (ABBA): over such a pair every contender has the same mean place, and a steady
//! drift adds the same to all.

/// Fixed, so that two runs with the same arguments have the same order; the samples' sequence numbers show it.
const SEED: u64 = 0x1507_a7e5;

/// For each of `rounds` rounds, the order in which the contenders `0..contenders` run.
// ANCHOR: rounds
pub fn rounds(contenders: usize, rounds: usize) -> Vec<Vec<usize>> {
    let mut lots = fastrand::Rng::with_seed(SEED);
    let mut order: Vec<usize> = (0..contenders).collect();
    let mut schedule = Vec::with_capacity(rounds);
    for round in 0..rounds {
        if round % 2 == 0 {
            lots.shuffle(&mut order);
        } else {
            order.reverse();
        }
        schedule.push(order.clone());
    }
    schedule
}
// ANCHOR_END: rounds

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_contender_once() {
        for mut round in rounds(5, 7) {
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn over_a_pair_of_rounds_all_have_the_same_mean_place() {
        for pair in rounds(6, 20).chunks(2) {
            for contender in 0..6 {
                let place = |round: &[usize]| round.iter().position(|&c| c == contender).unwrap();
                assert_eq!(place(&pair[0]) + place(&pair[1]), 5);
            }
        }
    }

    #[test]
    fn the_order_is_not_always_the_same() {
        let schedule = rounds(6, 20);
        assert!(schedule.chunks(2).any(|pair| pair[0] != schedule[0]));
    }
}
