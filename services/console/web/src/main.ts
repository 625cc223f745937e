import './tokens.css';
import './base.css';
import { mount } from 'svelte';
import App from './shell/App.svelte';
import { keys } from './lib/keys.svelte';
import { router } from './lib/router.svelte';
import { session } from './lib/session.svelte';

router.start();
keys.start();
void session.start();
mount(App, { target: document.getElementById('app')! });
