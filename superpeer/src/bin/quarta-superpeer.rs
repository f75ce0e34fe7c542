//! The program `quarta-superpeer`.

fn main() -> std::process::ExitCode {
    quarta_superpeer::cli::main_with(std::env::args_os())
}
