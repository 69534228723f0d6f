//! The bridge between our attributes and the traits of `stun_types`.

/// Implements the crate's traits for a type with `decode(&[u8]) -> Option<Self>` and `encode(&self) -> impl AsRef<[u8]>`. The
/// calling file must import the traits.
macro_rules! on_stun_types {
    ($name:ident, $kind:expr) => {
        impl AttributeStaticType for $name {
            const TYPE: AttributeType = AttributeType::new($kind);
        }
        impl Attribute for $name {
            fn get_type(&self) -> AttributeType {
                Self::TYPE
            }
            fn length(&self) -> u16 {
                // No value here is longer than 20 bytes.
                AsRef::<[u8]>::as_ref(&self.encode()).len() as u16
            }
        }
        impl AttributeFromRaw<'_> for $name {
            fn from_raw_ref(raw: &RawAttribute<'_>) -> Result<Self, StunParseError> {
                raw.check_type_and_len(Self::TYPE, ..)?;
                Self::decode(&raw.value).ok_or(StunParseError::InvalidAttributeData)
            }
        }
        impl AttributeWrite for $name {
            fn write_into_unchecked(&self, dest: &mut [u8]) {
                self.write_header_unchecked(dest);
                let (value, len) = (self.encode(), self.padded_len());
                let value: &[u8] = value.as_ref();
                dest[4..4 + value.len()].copy_from_slice(value);
                dest[4 + value.len()..len].fill(0);
            }
            fn to_raw(&self) -> RawAttribute<'_> {
                RawAttribute::new_owned(Self::TYPE, AsRef::<[u8]>::as_ref(&self.encode()).into())
            }
        }
    };
}
pub(super) use on_stun_types;
