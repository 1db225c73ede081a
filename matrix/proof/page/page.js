// SPDX-License-Identifier: GPL-2.0
"use strict";
// The page is complete without this: it only shows the buttons and makes them work.
const said = document.getElementById("said");
const only = document.getElementById("only");

function say(text) {
	said.textContent = text;
	setTimeout(() => { said.textContent = ""; }, 3000);
}

async function copy(code) {
	try {
		await navigator.clipboard.writeText(code.textContent);
		say("Copied");
	} catch {
		getSelection().selectAllChildren(code);
		say(document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C");
	}
}

for (const button of document.querySelectorAll(".copy")) {
	button.hidden = false;
	button.addEventListener("click", () => copy(button.parentNode.querySelector("code")));
}
only.hidden = false;
only.addEventListener("click", () => {
	const on = document.body.classList.toggle("only");
	only.setAttribute("aria-pressed", String(on));
});
