package drop

import (
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// temporary holds the patterns of path.Match, in lower case, of names that
// programs give to what is still being written. This table is the only place
// that knows them.
var temporary = []string{
	"*.filepart",                   // WinSCP
	"*.part",                       // Firefox, ncftp, many scripts
	"*.partial",                    // Internet Explorer, others
	"*.crdownload",                 // Chromium
	"*.download",                   // Safari
	"*.opdownload",                 // Opera
	"*.aria2",                      // aria2
	"*.upload",                     // upload tools
	"*.uploading",                  //
	"*.incomplete",                 //
	"*.inprogress",                 //
	"*.tmp",                        // everybody
	"*.temp",                       //
	"*.swp",                        // vim
	"~$*",                          // Microsoft Office
	".~lock.*#",                    // LibreOffice
	".~tmp~",                       // rsync --delay-updates
	".rsync-partial",               // rsync --partial-dir
	".rsync-tmp",                   // rsync --temp-dir, by convention
	".*.??????",                    // rsync, while it writes; see also Temporary
	".in.*",                        // lftp, xfer:use-temp-file
	".pureftpd-upload.*",           // Pure-FTPd
	".sftpgo-upload.*",             // SFTPGo, upload_mode 1 and 2
	".goutputstream-*",             // GLib
	".nfs[0-9a-f]*",                // NFS client: deleted while open
	".fuse_hidden*",                // FUSE: deleted while open
	".smbdelete*",                  // CIFS client: deleted while open
	"*.sb-????????-??????",         // macOS, safe save
	".com.apple.timemachine.*",     // macOS
	".syncthing.*", "~syncthing~*", // Syncthing
}

// Temporary reports whether name is one that some program gives to what is
// still being written.
func Temporary(name string) bool {
	lower := strings.ToLower(name)
	for _, p := range temporary {
		// Nearly all names are none of them, and a first character, or an end
		// without anything special in it, tells that at once.
		if p[0] != '*' && !strings.HasPrefix(lower, p[:1]) || p[0] == '*' && !strings.ContainsRune(p[1:], '?') && !strings.HasSuffix(lower, p[1:]) {
			continue
		}
		ok, err := path.Match(p, lower)
		if err != nil || !ok {
			continue
		}
		// rsync's six characters are letters and digits: ".front.jpg.Xk3f0a",
		// but not ".backup.old-01".
		if p == ".*.??????" && strings.IndexFunc(lower[len(lower)-6:], notAlphanumeric) >= 0 {
			continue
		}
		return true
	}
	return false
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9')
}

// junk holds names, in lower case, that systems and NAS boxes put into shared
// directories by themselves.
var junk = map[string]bool{
	"@eadir": true, "#recycle": true, "#snapshot": true, "@tmp": true, // Synology
	"$recycle.bin": true, "system volume information": true, "thumbs.db": true, "desktop.ini": true, // Windows
	"lost+found": true, // ext4
	"__macosx":   true, // macOS archives
}

// Junk reports whether name, in the inbox, is none of a drop: hidden, or put
// there by a system.
func Junk(name string) bool {
	return strings.HasPrefix(name, ".") || junk[strings.ToLower(name)]
}

// Kind names what is no folder: file, link or special.
func Kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.Type() == fs.ModeSymlink:
		return "link"
	default:
		return "special"
	}
}

// CleanName returns what is wrong with a name that is to stand in results and
// listings, or "".
func CleanName(name string) string {
	if !utf8.ValidString(name) {
		return "is not valid UTF-8"
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return "has a control character in it, such as a line break"
		}
		if unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return "has an invisible character in it that changes how text is shown"
		}
	}
	return ""
}
