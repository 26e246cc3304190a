//! What one peer holds of a budget in many small parts.

use crate::budget::{Budget, Held, Spent};
use crate::peer::Peer;
use std::sync::Arc;

/// What an account itself takes, here and in its budget's table of peers.
const ACCOUNT_BYTES: usize = 256;
/// The budget is asked for at least so much at once.
const STEP_BYTES_MIN: usize = 512;
/// And for at most so much more than is needed.
const STEP_BYTES_MAX: usize = 64 << 10;

/// Bytes that come and go in small parts: the budget, which all threads share, is asked for more
/// than the next part needs, an eighth of what is held.
#[derive(Debug)]
pub struct Account {
    held: Held,
    bytes: usize,
}

impl Account {
    /// An account of a peer, with nothing in it.
    ///
    /// # Errors
    /// If the budget has no room for the account itself.
    pub fn open(budget: &Arc<Budget>, peer: impl Into<Peer>) -> Result<Self, Spent> {
        Ok(Self {
            held: budget.share(peer).hold(ACCOUNT_BYTES)?,
            bytes: 0,
        })
    }

    /// What was taken and not given back.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// If the peer's share or the whole budget has no room for them; nothing is taken then.
    pub fn take(&mut self, bytes: usize) -> Result<(), Spent> {
        let sum = self.bytes.saturating_add(bytes);
        if ACCOUNT_BYTES.saturating_add(sum) > self.held.bytes() {
            let (ample, exact) = (rounded(sum), sum.saturating_add(ACCOUNT_BYTES));
            let held = &mut self.held;
            held.resize(ample).or_else(|_spent| held.resize(exact))?;
        }
        self.bytes = sum;
        Ok(())
    }

    /// Gives back what was taken.
    pub fn give(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        let ample = rounded(self.bytes);
        if self.held.bytes() > ample + 2 * step(self.bytes) {
            // Holding less is never refused.
            let _given_back = self.held.resize(ample).is_ok();
        }
    }
}

fn step(bytes: usize) -> usize {
    let eighth = (bytes / 8).next_power_of_two();
    eighth.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
}

fn rounded(bytes: usize) -> usize {
    let with_account = bytes.saturating_add(ACCOUNT_BYTES);
    with_account
        .checked_next_multiple_of(step(bytes))
        .unwrap_or(with_account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn small_parts_are_held_with_little_more_than_they_are() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let mut account = Account::open(&budget, peer(1)).unwrap();
        for sum in (100..500_000).step_by(100) {
            account.take(100).unwrap();
            let held = budget.held_bytes();
            let most = sum + sum / 4 + ACCOUNT_BYTES + STEP_BYTES_MIN;
            assert!((sum..=most).contains(&held), "{sum} {held}");
        }
        while account.bytes() > 0 {
            account.give(100);
            assert!(budget.held_bytes() >= account.bytes());
        }
        assert!(budget.held_bytes() <= ACCOUNT_BYTES + 3 * STEP_BYTES_MIN);
        drop(account);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn the_last_byte_can_be_taken_and_no_more() {
        let budget = Budget::new(10_000, 10_000);
        let mut account = Account::open(&budget, peer(1)).unwrap();
        account.take(9_000).unwrap();
        assert_eq!(account.take(1_000), Err(Spent::Share));
        account.take(10_000 - ACCOUNT_BYTES - 9_000).unwrap();
        assert_eq!(account.take(1), Err(Spent::Share));
        assert_eq!(account.take(usize::MAX), Err(Spent::Share));
        assert!(Account::open(&budget, peer(2)).is_err());
    }
}
