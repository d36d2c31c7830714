//! Memory for one secret: pages of its own that are not swapped out, not dumped, and wiped at the end.

use std::sync::Once;

use memmap2::{Advice, MmapMut};
use zeroize::{Zeroize, Zeroizing};

/// So many bytes, all zero at first.
pub(crate) enum SecretMemory {
    /// Shared with nothing else, so that unlocking it unlocks nothing else.
    Pages(MmapMut),
    /// Where the system has no more mappings for us.
    Heap(Zeroizing<Vec<u8>>),
}

/// So that a system without room for locked memory is told of once, not with each secret.
static UNLOCKED: Once = Once::new();

impl SecretMemory {
    /// `length` is not 0. That it cannot be locked is a warning, no error: a PIN that may be swapped out
    /// is better than a service that does not start.
    pub(crate) fn new(length: usize) -> SecretMemory {
        let (memory, locked) = match MmapMut::map_anon(length) {
            Ok(pages) => {
                // Beside RLIMIT_CORE, which a supervisor may raise again.
                let _ = pages.advise(Advice::DontDump);
                let locked = pages.lock();
                (SecretMemory::Pages(pages), locked)
            }
            Err(error) => (
                SecretMemory::Heap(Zeroizing::new(vec![0; length])),
                Err(error),
            ),
        };
        if let Err(error) = locked {
            UNLOCKED.call_once(|| {
                eprintln!(
                    "roleseal: warning: the memory of PINs cannot be locked, so that they may be swapped out: \
                     {error}; raise the limit (systemd: LimitMEMLOCK=), or encrypt the swap space"
                );
            });
        }
        memory
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            SecretMemory::Pages(pages) => pages,
            SecretMemory::Heap(bytes) => bytes,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            SecretMemory::Pages(pages) => pages,
            SecretMemory::Heap(bytes) => bytes,
        }
    }
}

impl Drop for SecretMemory {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that holds the memory.
    fn flags(memory: &SecretMemory) -> String {
        let address = memory.bytes().as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            if let Some((from, to)) = range
                && let Ok(from) = usize::from_str_radix(from, 16)
                && let Ok(to) = usize::from_str_radix(to, 16)
            {
                here = (from..to).contains(&address);
            }
            if here && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.to_owned();
            }
        }
        panic!("no mapping at {address:x}");
    }

    #[test]
    fn it_is_locked_and_left_out_of_dumps() {
        let memory = SecretMemory::new(100);
        let flags = flags(&memory);
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        assert!(has("lo") && has("dd"), "{flags}");
        assert_eq!(memory.bytes(), [0; 100]);
    }

    /// A page holds more secrets than one, unless each has its own: the first that goes would unlock the
    /// others.
    #[test]
    fn one_that_goes_leaves_the_others_locked() {
        let stays = SecretMemory::new(4);
        drop((SecretMemory::new(4), SecretMemory::new(4)));
        assert!(flags(&stays).split_whitespace().any(|word| word == "lo"));
    }
}
