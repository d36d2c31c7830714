//! Platform configuration registers: which a policy names, what they were, and which of them changed.

use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, PcrSelectionList};
use tss_esapi::tss2_esys::{TPML_PCR_SELECTION, TPMS_PCR_SELECTION};

use crate::error::Failure;
use crate::marshalled::Marshalled;
use crate::tpm::Tpm;

/// The PCRs of a policy.
#[derive(Debug, Clone)]
pub(crate) struct Pcrs {
    /// In the file's own form: the size of its bit field is part of what the policy's digest is made of.
    pub(crate) selection: PcrSelectionList,
    each: Vec<Pcr>,
}

/// One PCR of one bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pcr {
    bank: u16,
    number: usize,
}

/// What PCRs were.
#[derive(Default)]
pub(crate) struct Snapshot(Vec<(Pcr, Option<Digest>)>);

impl Pcrs {
    /// From a marshalled TPML_PCR_SELECTION.
    pub(crate) fn read(body: &mut Marshalled) -> Option<Pcrs> {
        let mut list = TPML_PCR_SELECTION::default();
        let mut each = Vec::new();
        for _ in 0..body.u32()? {
            let bank = body.u16()?;
            let length = body.u8()?;
            let bits = body.take(length.into())?;
            let place = list.pcrSelections.get_mut(list.count as usize)?;
            list.count += 1;
            *place = selection(bank, bits)?;
            let set = |number: &usize| {
                bits.get(number / 8)
                    .is_some_and(|byte| byte & (1 << (number % 8)) != 0)
            };
            each.extend(
                (0..bits.len() * 8)
                    .filter(set)
                    .map(|number| Pcr { bank, number }),
            );
        }
        let selection = list.try_into().ok()?;
        Some(Pcrs { selection, each })
    }
}

fn selection(bank: u16, bits: &[u8]) -> Option<TPMS_PCR_SELECTION> {
    let mut selection = TPMS_PCR_SELECTION {
        hash: bank,
        sizeofSelect: u8::try_from(bits.len()).ok()?,
        ..TPMS_PCR_SELECTION::default()
    };
    selection
        .pcrSelect
        .get_mut(..bits.len())?
        .copy_from_slice(bits);
    Some(selection)
}

/// A marshalled TPML_PCR_SELECTION of the SHA-256 bank, in the usual three bytes.
pub(crate) fn sha256_selection(numbers: &[u8]) -> Vec<u8> {
    const ONE_OF_SHA256: [u8; 7] = [0, 0, 0, 1, 0, 0x0b, 3];
    let mut bits = [0; 3];
    for number in numbers {
        if let Some(byte) = bits.get_mut(usize::from(number / 8)) {
            *byte |= 1 << (number % 8);
        }
    }
    [&ONE_OF_SHA256[..], &bits].concat()
}

impl Snapshot {
    /// All values, in the order that TPM2_PolicyPCR takes them in; or the PCR that the TPM does not have.
    pub(crate) fn values(&self) -> Result<Vec<u8>, String> {
        let mut values = Vec::new();
        for (pcr, value) in &self.0 {
            values.extend_from_slice(value.as_ref().ok_or_else(|| pcr.name())?);
        }
        Ok(values)
    }

    pub(crate) fn add(&mut self, tpm: &mut Tpm, pcrs: &Pcrs) -> Result<(), Failure> {
        for pcr in &pcrs.each {
            let value = read(tpm, *pcr)?;
            self.0.push((*pcr, value));
        }
        Ok(())
    }

    /// Says why PCRs are not what a key was made for, where nothing earlier is known: a key file has one digest over
    /// all of its PCRs.
    pub(crate) fn mismatch(&self, pcrs: &Pcrs) -> String {
        if let Err(name) = self.values() {
            return format!(
                "its policy does not hold: the TPM has no {name}: switch that bank on in the firmware"
            );
        }
        let names = list(pcrs.each.iter());
        let changed = match pcrs.each.len() {
            1 => format!("{names} is"),
            _ => format!("some of {names} are"),
        };
        format!(
            "its policy does not hold: {changed} not what the key was made for (firmware, boot loader, kernel \
             or Secure Boot settings have changed): boot as before, or make the key anew"
        )
    }

    /// Says which have changed since.
    pub(crate) fn compare(&self, tpm: &mut Tpm) -> String {
        let changed = |(pcr, value): &&(Pcr, _)| read(tpm, *pcr).is_ok_and(|now| now != *value);
        let changed: Vec<_> = self.0.iter().filter(changed).map(|(pcr, _)| pcr).collect();
        format!(
            "its policy does not hold any more: {} changed while the machine ran; restart the machine, and \
             see what extends them",
            list(changed.into_iter())
        )
    }
}

fn read(tpm: &mut Tpm, pcr: Pcr) -> Result<Option<Digest>, Failure> {
    let (_, _, values) = tpm.run("TPM2_PCR_Read", |context| {
        let mut bits = [0; 4];
        if let Some(byte) = bits.get_mut(pcr.number / 8) {
            *byte = 1 << (pcr.number % 8);
        }
        let mut list = TPML_PCR_SELECTION::default();
        if let (Some(place), Some(one)) = (
            list.pcrSelections.first_mut(),
            selection(pcr.bank, bits.get(..3).unwrap_or_default()),
        ) {
            *place = one;
            list.count = 1;
        }
        context.pcr_read(list.try_into()?)
    })?;
    Ok(values.value().first().cloned())
}

fn list<'a>(pcrs: impl Iterator<Item = &'a Pcr>) -> String {
    let names: Vec<_> = pcrs.map(Pcr::name).collect();
    match names.as_slice() {
        [] => "a PCR".to_owned(),
        names => names.join(", "),
    }
}

impl Pcr {
    fn name(&self) -> String {
        let bank = match HashingAlgorithm::try_from(self.bank) {
            Ok(hash) => format!("{hash:?}").to_lowercase(),
            Err(_) => format!("{:#x}", self.bank),
        };
        format!("PCR {} ({bank})", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_keep_their_form() {
        let bytes = [0, 0, 0, 2, 0, 0x0b, 3, 0x81, 0, 0, 0, 0x0c, 3, 0, 0, 0x80];
        let pcrs = Pcrs::read(&mut Marshalled(&bytes)).unwrap();
        assert_eq!(
            list(pcrs.each.iter()),
            "PCR 0 (sha256), PCR 7 (sha256), PCR 23 (sha384)"
        );
        let raw = TPML_PCR_SELECTION::from(pcrs.selection);
        assert_eq!(raw.count, 2);
        assert_eq!(raw.pcrSelections[0].sizeofSelect, 3);
        assert_eq!(raw.pcrSelections[1].hash, 0x0c);
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        for bytes in [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 1, 0, 0x0b, 3, 0x81],
            &[0, 0, 0, 1, 0, 0x0b, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 1, 0xff, 0xff, 3, 0x81, 0, 0],
        ] {
            assert!(Pcrs::read(&mut Marshalled(bytes)).is_none(), "{bytes:?}");
        }
    }
}
