// Registers a passkey, and logs in by one. The answers of the host say what is wrong.
const passkey = {
	async post(path, body) {
		const answer = await fetch("/.lodge/passkeys/" + path, {
			method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
		})
		const said = await answer.json()
		if (!answer.ok) throw new Error(said.error + (said.hint ? ". " + said.hint : ""))
		return said
	},
	async register(name) {
		const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await passkey.post("new", {}))
		return passkey.post("add", { name, credential: await navigator.credentials.create({ publicKey }) })
	},
	async login() {
		const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await passkey.post("challenge", {}))
		return passkey.post("login", await navigator.credentials.get({ publicKey }))
	},
	// The page's form with the attribute data-passkey registers or logs in, and then loads the page anew.
	serve(form) {
		const note = form.querySelector("[role=status]")
		if (!self.PublicKeyCredential?.parseRequestOptionsFromJSON) {
			form.querySelector("button").disabled = true
			note.textContent = "This browser cannot use passkeys."
			return
		}
		form.onsubmit = async event => {
			event.preventDefault()
			note.textContent = "Waiting for your device."
			try {
				await passkey[form.dataset.passkey](form.elements.name?.value)
				location.reload()
			} catch (err) {
				note.textContent = err.name == "NotAllowedError" ? "The device gave no passkey. Try again." :
					err.name == "InvalidStateError" ? "This device has a passkey of yours already." : err.message
			}
		}
	},
}
addEventListener("DOMContentLoaded", () => document.querySelectorAll("[data-passkey]").forEach(passkey.serve))
