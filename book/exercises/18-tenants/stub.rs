/// What things weigh, in bytes.
pub struct Costs {
    /// A VM of one tenant, before anything runs in it: taken anew for each.
    pub vm: u64,
    /// The first container on a kernel, with all that further ones share.
    pub first: u64,
    /// One container more on the same kernel.
    pub more: u64,
}

// ANCHOR: stub
/// How many tenants fit into `memory` bytes, each with a VM of its own in which `containers` containers run. Only whole tenants count;
/// a tenant without containers still has his VM.
pub fn tenants(memory: u64, containers: u64, costs: &Costs) -> u64 {
    memory / (costs.vm + containers * costs.first)
}
// ANCHOR_END: stub
