//! What there is in a TPM.

use token::operator::Outcome;
use token::operator::tpm::{KeyReport, TpmReport};
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::TpmHandle;
use tss_esapi::structures::{CapabilityData, TaggedTpmPropertyList};
use tss_esapi::{Error, WrapperErrorKind};

use super::report;
use crate::error::Failure;
use crate::tpm::Tpm;

/// The first persistent handle (TPM 2.0 library, part 2, 7.5).
const FIRST_PERSISTENT: u32 = 0x8100_0000;

/// More persistent keys than a TPM has room for; one answer has place for 254.
const KEYS: u32 = 128;

pub(super) fn list(tpm: &mut Tpm) -> Outcome<TpmReport> {
    let failed = |failure: Failure| failure.while_doing("cannot read what the TPM says of itself");
    let model = model(tpm).map_err(failed)?;
    let lockout = tpm.lockout().map_err(failed)?;
    let (handles, more) = tpm.handles_from(FIRST_PERSISTENT, KEYS).map_err(failed)?;
    let mut keys = Vec::new();
    for handle in handles {
        keys.push(key(tpm, handle)?);
    }
    let mut warnings: Vec<String> = lockout.warning().into_iter().collect();
    if more {
        warnings.push(format!("there are more persistent keys than these {KEYS}"));
    }
    Ok(TpmReport {
        model,
        lockout_counter: lockout.counter,
        max_auth_fail: lockout.limit,
        keys,
        warnings,
    })
}

/// A key that cannot be read is in the list all the same.
fn key(tpm: &mut Tpm, handle: TpmHandle) -> Outcome<KeyReport> {
    let handle = u32::from(handle);
    match tpm.find_persistent(handle) {
        Ok((_, public)) => Ok(report::of(Some(handle), &public)),
        Err(failure) if failure.is_without_answer() => Err(failure.gone(tpm.name())),
        Err(failure) => Ok(KeyReport {
            handle: Some(handle),
            algorithm: "unknown".to_owned(),
            attributes: Vec::new(),
            public_key: None,
            key_file: None,
            warnings: vec![format!("its public area cannot be read: {failure}")],
        }),
    }
}

/// Such as `IBM SW TPM, firmware 8217.4131.22.13878`.
fn model(tpm: &mut Tpm) -> Result<String, Failure> {
    const PROPERTIES: u32 = 16; // from the manufacturer to the firmware's version
    let first = PropertyTag::Manufacturer.into();
    let properties = tpm.run("TPM2_GetCapability", |context| {
        let (data, _) = context.get_capability(CapabilityType::TpmProperties, first, PROPERTIES)?;
        match data {
            CapabilityData::TpmProperties(properties) => Ok(properties),
            _ => Err(Error::WrapperError(WrapperErrorKind::WrongValueFromTpm)),
        }
    })?;
    let manufacturer = text(&properties, &[PropertyTag::Manufacturer]);
    let vendor = text(
        &properties,
        &[
            PropertyTag::VendorString1,
            PropertyTag::VendorString2,
            PropertyTag::VendorString3,
            PropertyTag::VendorString4,
        ],
    );
    let version = [PropertyTag::FirmwareVersion1, PropertyTag::FirmwareVersion2]
        .map(|tag| value(&properties, tag))
        .map(|half| format!("{}.{}", half >> 16, half & 0xffff))
        .join(".");
    Ok(format!("{manufacturer} {vendor}, firmware {version}"))
}

fn value(properties: &TaggedTpmPropertyList, tag: PropertyTag) -> u32 {
    properties.find(tag).map_or(0, |property| property.value())
}

/// Four characters in each; what is no letter for people is left out.
fn text(properties: &TaggedTpmPropertyList, tags: &[PropertyTag]) -> String {
    let bytes = tags
        .iter()
        .flat_map(|tag| value(properties, *tag).to_be_bytes());
    let text: String = bytes
        .filter(|byte| (b' '..=b'~').contains(byte))
        .map(char::from)
        .collect();
    text.trim().to_owned()
}
