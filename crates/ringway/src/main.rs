//! The `ringway` program: see its library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ringway::main()
}
