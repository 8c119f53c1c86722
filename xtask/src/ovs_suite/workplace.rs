use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use e2e::ovs_suite::{self, TARBALL};
use e2e::peers::target_dir;
use e2e::process::run as output_of;
use e2e::ringway::binary;

use super::output::{self, Suite, Test, Verdict};

/// What the suite asks of whoever has configured its source; the rest of its questions are about what
/// was compiled, of which there is nothing.
const ANSWERS: [(&str, &str); 3] =
    [("HAVE_OPENSSL", "yes"), ("EGREP", "grep -E"), ("PYTHON3", "/usr/bin/python3")];

/// What has come of tests, by their numbers.
pub type Verdicts = BTreeMap<(Suite, u32), Verdict>;

/// A folder in which the suite can run.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
}

impl Workplace {
    /// Makes it: with Debian's `ovs-vswitchd`, or with ours.
    pub fn make(debian: bool) -> Result<Self> {
        let source = source()?;
        let name = if debian { "debian" } else { "ringway" };
        let folder = target_dir().join("ovs-suite").join(name);
        drop(fs::remove_dir_all(&folder));
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        if !debian {
            symlink(binary()?, bin.join("ovs-vswitchd"))?;
        }
        for suite in Suite::ALL {
            let program = suite.program();
            symlink(source.join("tests").join(program), folder.join(program))?;
        }
        fs::write(folder.join("atconfig"), atconfig(&folder, &source))?;
        let asked = source.join("tests/atlocal.in");
        let asked = fs::read_to_string(&asked).with_context(|| asked.display().to_string())?;
        fs::write(folder.join("atlocal"), atlocal(&asked) + PATIENCE)?;
        Ok(Self { folder })
    }

    /// All tests of the suite.
    pub fn tests(&self) -> Result<Vec<Test>> {
        let each = Suite::ALL.map(|suite| self.tests_of(suite));
        let each: Result<Vec<Vec<Test>>> = each.into_iter().collect();
        Ok(each?.concat())
    }

    fn tests_of(&self, suite: Suite) -> Result<Vec<Test>> {
        let mut list = Command::new(format!("./{}", suite.program()));
        list.current_dir(&self.folder).arg("--list");
        let script = self.folder.join(suite.program());
        let script = fs::read(&script).with_context(|| script.display().to_string())?;
        Ok(output::tests(suite, &output_of(&mut list)?, &String::from_utf8_lossy(&script)))
    }

    /// Runs these tests one after the other; what it prints can be seen.
    pub fn run(&self, tests: &[Test]) -> Result<Verdicts> {
        let mut all = Verdicts::new();
        for suite in Suite::ALL {
            let numbers = tests.iter().filter(|test| test.suite == suite);
            let numbers: Vec<String> = numbers.map(|test| test.number.to_string()).collect();
            if !numbers.is_empty() {
                let verdicts = self.run_suite(suite, &numbers)?;
                all.extend(verdicts.into_iter().map(|(number, one)| ((suite, number), one)));
            }
        }
        Ok(all)
    }

    /// They are in namespaces of their own: some make interfaces and namespaces by name, and one that
    /// fails leaves processes.
    fn run_suite(&self, suite: Suite, numbers: &[String]) -> Result<BTreeMap<u32, Verdict>> {
        // What is kept of a test that has passed is kept to be looked at.
        let line = format!(
            "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && \
             exec ./{} --debug \"$@\"",
            suite.program()
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", &line, "sh"]).args(numbers).current_dir(&self.folder);
        // It has no terminal, and says on standard error what its set-up lacks.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut suite = command.spawn().context("unshare")?;
        let mut text = String::new();
        let lines = suite.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines);
        for line in lines.map_while(Result::ok) {
            if !output::verdicts(&line).is_empty() {
                println!("{line}");
            }
            text += &line;
            text.push('\n');
        }
        // Its status says that a test failed, which is known.
        suite.wait()?;
        Ok(output::verdicts(&text))
    }

    /// Where a test has written what it did.
    pub fn log_of(&self, test: &Test) -> PathBuf {
        let (program, number) = (test.suite.program(), test.number);
        let width = if test.suite == Suite::Units { 4 } else { 3 };
        self.folder.join(format!("{program}.dir/{number:0width$}/{program}.log"))
    }
}

/// The source, unpacked.
fn source() -> Result<PathBuf> {
    let folder = target_dir().join("ovs-suite");
    let source = folder.join("openvswitch");
    if !ovs_suite::is_in(&source) {
        fs::create_dir_all(&folder)?;
        let mut unpack = Command::new("tar");
        output_of(
            unpack.arg("--extract").arg("--file").arg(TARBALL).arg("--directory").arg(&folder),
        )?;
    }
    Ok(source)
}

fn atconfig(folder: &Path, source: &Path) -> String {
    let (folder, source) = (folder.display(), source.display());
    format!(
        "at_testdir='tests'\nabs_builddir='{folder}'\nat_srcdir='{source}/tests'\n\
         abs_srcdir='{source}/tests'\nat_top_srcdir='{source}'\nabs_top_srcdir='{source}'\n\
         at_top_build_prefix='{folder}/'\nabs_top_builddir='{folder}'\nat_top_builddir='{folder}'\n\
         EXEEXT=''\nAUTOTEST_PATH='{folder}/bin:/usr/bin:/usr/sbin:{source}/tests'\n\
         SHELL=${{CONFIG_SHELL-'/bin/bash'}}\n"
    )
}

/// How many seconds tests wait for something, and their tools for an answer, behind all else that they are set to. By
/// itself it is 30: controllers that listen all through a test end before it does where the machine has more to do.
const PATIENCE: &str = "\nOVS_CTL_TIMEOUT=120\n";

/// The questions `@NAME@` of the template, answered.
fn atlocal(template: &str) -> String {
    let mut parts = template.split('@');
    let mut text = parts.next().unwrap_or_default().to_owned();
    let mut is_name = true;
    for part in parts {
        let is_word = !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if is_name && is_word {
            let answer = ANSWERS.iter().find(|(name, _)| *name == part);
            text += answer.map_or("", |(_, answer)| answer);
            is_name = false;
        } else {
            if is_name {
                text.push('@');
            }
            text += part;
            is_name = true;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_the_template_are_answered() {
        assert_eq!(atlocal("A='@EGREP@'\nB='@CFLAGS@'\n"), "A='grep -E'\nB=''\n");
        assert_eq!(atlocal("x \"$@\" y @PYTHON3@ z@"), "x \"$@\" y /usr/bin/python3 z@");
    }
}
