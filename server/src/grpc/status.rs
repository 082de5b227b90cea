//! Refusals as gRPC tells them.

use crate::openai::Refusal;
use tonic::{Code, Status};

/// The status that a refusal is.
pub fn status(refusal: &Refusal) -> Status {
    let code = match refusal.status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 | 410 => Code::FailedPrecondition,
        429 | 507 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        400..500 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    Status::new(code, refusal.message.clone())
}
