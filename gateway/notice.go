package gateway

// NoticeKind is what a Notice is about.
type NoticeKind string

// The kinds.
const (
	NoticeLogin  NoticeKind = "login"  // a link that logs its reader in, once
	NoticeAccess NoticeKind = "access" // somebody asks for access
)

// Notice is mail of the host itself to one of its people.
type Notice struct {
	Kind    NoticeKind
	VM      ID     // that it is about
	To      string // a person's mail address
	Subject string // printable ASCII, as is the text; what is not is sent as "?"
	Text    string // lines that end in LF; it may have a secret, and is never logged
}
