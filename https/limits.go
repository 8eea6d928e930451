package https

// maxRequestsPerVM is how many requests of one VM are under way at once; one HTTP/2 client can have
// hundreds.
const maxRequestsPerVM = 4096
