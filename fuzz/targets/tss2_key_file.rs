//! TSS2 PRIVATE KEY files: PEM, DER, and the TPM's own structures in them, which libtss2 reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roleseal_tpm::key_file::KeyFile;
use roleseal_tpm::read_areas;

fuzz_target!(|bytes: &[u8]| {
    for key in [KeyFile::from_der(bytes), KeyFile::parse(bytes)] {
        let _ = key.map(|key| read_areas(&key));
    }
});
