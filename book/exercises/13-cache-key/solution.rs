/// The key of a step: equal for equal fields, another for any other fields. The first field is the digest of what is below.
pub fn key(fields: &[&str]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    for field in fields {
        // Its length in front says where a field ends.
        hasher.write_u64(field.len() as u64);
        hasher.write(field.as_bytes());
    }
    hasher.finish()
}
