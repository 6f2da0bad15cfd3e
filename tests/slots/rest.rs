//! What the files import and models need little of.

pub(crate) mod clock {
    use std::fmt::Debug;
    use std::time::{Duration, SystemTime};

    pub(crate) trait Clock: Debug {
        fn now(&self) -> SystemTime;
        fn elapsed(&self) -> Duration;
    }

    /// A clock that stands, in seconds.
    #[derive(Debug)]
    pub(crate) struct At(pub(crate) u64);

    impl Clock for At {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0)
        }
    }

    pub(crate) fn unix_time(at: SystemTime) -> f64 {
        at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

pub(crate) mod identity {
    /// A tenant by number.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    pub struct TenantId(pub u8);

    /// Somebody of a tenant.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Identity {
        pub name: &'static str,
        pub tenant: TenantId,
    }

    impl Identity {
        pub(crate) fn footprint(&self) -> usize {
            300
        }

        pub(crate) fn tenant_id(&self) -> Option<&TenantId> {
            Some(&self.tenant)
        }
    }
}

pub(crate) mod issuer {
    pub(crate) use crate::grounds::Grounds;
}

pub(crate) mod mark {
    /// The first octets of a short text, so that models can choose who is near whom.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Mark([u64; 2]);

    impl Mark {
        pub(crate) fn of(words: [u64; 2]) -> Self {
            Self(words)
        }

        pub(crate) fn words(self) -> [u64; 2] {
            self.0
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Marker(u64);

    impl Marker {
        pub(crate) fn add(&mut self, octets: &[u8]) {
            self.0 = octets.iter().fold(self.0, |word, octet| word << 8 | u64::from(*octet));
        }

        pub(crate) fn mark(self) -> Mark {
            Mark([0, self.0])
        }
    }
}

pub(crate) mod rules {
    /// For ever.
    #[derive(Debug)]
    pub(crate) struct Lifetime;

    impl Lifetime {
        pub(crate) fn check(&self, _: f64) -> Result<(), ()> {
            Ok(())
        }

        pub(crate) fn is_over(&self, _: f64) -> bool {
            false
        }
    }
}

pub(crate) mod telemetry {
    pub(crate) fn known_tokens_displaced(_: u64) {}
}
