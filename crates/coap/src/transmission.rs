//! The times of RFC 7252 section 4.8, and the pauses between retransmissions.

use std::time::Duration;

/// How long to wait for an acknowledgement, at least, before sending again.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to send again.
pub const MAX_RETRANSMIT: u32 = 4;
/// How long a confirmable message's id means that message.
pub const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
/// How long a non-confirmable message's id means that message.
pub const NON_LIFETIME: Duration = Duration::from_secs(145);

/// Numbers that spread retransmissions, by xorshift. Nothing secret hangs on them.
#[derive(Debug)]
pub(crate) struct Spread(u64);

impl Spread {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The first pause: `ACK_TIMEOUT` times 1 to `ACK_RANDOM_FACTOR`, which is 1.5.
    pub(crate) fn first_timeout(&mut self) -> Duration {
        let part = u32::try_from(self.next() >> 40).unwrap_or_default();
        ACK_TIMEOUT + (ACK_TIMEOUT / 2).mul_f64(f64::from(part) / f64::from(1_u32 << 24))
    }
}

/// The pauses of one confirmable message, each twice the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    timeout: Duration,
    retransmitted: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        Self {
            timeout: first,
            retransmitted: 0,
        }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Goes on to the next pause; false where the message was sent often enough.
    pub(crate) fn advance(&mut self) -> bool {
        self.retransmitted += 1;
        self.timeout *= 2;
        self.retransmitted <= MAX_RETRANSMIT
    }
}
