
// Puts the command before a button into the clipboard; where that is not allowed, selects it.
document.querySelectorAll(".copy").forEach(button => {
	const code = button.previousElementSibling
	button.hidden = false
	button.onclick = async () => {
		try {
			await navigator.clipboard.writeText(code.textContent)
			button.textContent = "Copied"
			setTimeout(() => button.textContent = "Copy", 2000)
		} catch {
			getSelection().selectAllChildren(code)
		}
	}
})
