//! What the comparison, the benches of the parts and the instruction count have in common.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`plan`] | the workload: which events there are, in which order |
//! | [`parts`] | bodies, batches and stores in this process, made of that workload |

pub mod parts;
pub mod plan;
