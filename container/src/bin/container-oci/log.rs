//! Messages: where engines look for them, and in the form they parse.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::arguments::LogFormat;

/// Where messages go.
pub struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Log {
    /// Messages to `file`, or to standard error.
    pub fn new(file: Option<PathBuf>, format: LogFormat, _debug: bool) -> Log {
        Log { file, format }
    }

    /// The reason for a failure. To standard error in any case: that is what a person sees, and what an engine shows that
    /// has found nothing in the file.
    pub fn error(&self, message: &str) {
        if let Some(path) = &self.file {
            let opened = File::options().append(true).create(true).open(path);
            // There is nobody to tell that it could not be written, but for those who read the line below.
            let _ = opened.and_then(|mut file| writeln!(file, "{}", self.line(message)));
            eprintln!("container-oci: {message}");
        } else {
            match self.format {
                LogFormat::Text => eprintln!("container-oci: {message}"),
                LogFormat::Json => eprintln!("{}", self.line(message)),
            }
        }
    }

    fn line(&self, message: &str) -> String {
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        match self.format {
            LogFormat::Json => {
                serde_json::json!({ "level": "error", "msg": message, "time": time.to_string() }).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}"),
        }
    }
}
